"""Which conversations this runner owns: claimed, kept, taken over, let go."""
