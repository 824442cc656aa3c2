"""Statistics by which a test tells uniform slots from slots that say something: the auditor's own."""

from silo.audit.attack.statistics import BY_CHANCE, correlation_in_stds, p_independent, p_uniform

__all__ = ["BY_CHANCE", "correlation_in_stds", "p_independent", "p_uniform"]
