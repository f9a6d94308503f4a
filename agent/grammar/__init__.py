"""Grammars of constrained generation: from a client's text to one that llguidance compiles."""
