"""Decisions, pure: facts and the time go in, a decision comes out; no clock, socket or log."""
