"""Grammars of what a client sends, right but for deliberate faults, each of a known outcome.

They are written from the RFCs and the tables of docs/closing.md, and know nothing of the package.
"""
