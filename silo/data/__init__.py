"""From an organisation's own tables to clean interactions, and from public sets to experiments."""
