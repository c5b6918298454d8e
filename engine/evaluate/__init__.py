"""Candidates generated and scored on one engine or on many."""
