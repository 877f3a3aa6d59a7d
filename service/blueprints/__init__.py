"""Routes and sockets, one module for each router of the contract; what they have in common is in the folders."""
