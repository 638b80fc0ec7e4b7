"""CEL: the expressions in a rule's `when`, behind one small interface (`runtime.py`)."""
