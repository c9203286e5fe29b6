"""How the mini base was made: from random weights to a model that follows both answer formats."""
