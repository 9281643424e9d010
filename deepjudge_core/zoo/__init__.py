"""The zoo: controls and stolen models of a victim, made here, and how many of the thefts an audit would notice."""
