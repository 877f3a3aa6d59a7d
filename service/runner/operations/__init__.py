"""What web workers may ask of a runner, by name: one module for each router, and the table of them all."""
