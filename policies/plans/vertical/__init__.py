"""What a plan among silos that know the same people adds: terms, rules, prices, drafts."""
