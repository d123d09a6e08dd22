"""The recipe's networks as plain Keras builders; nothing here trains."""
