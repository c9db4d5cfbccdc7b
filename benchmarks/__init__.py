"""How much processor time an echo costs, here and in other servers; see README.md."""
