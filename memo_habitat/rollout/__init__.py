"""The batch contract, returns, and the storage of a trial."""
