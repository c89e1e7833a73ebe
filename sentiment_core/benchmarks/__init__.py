"""Speed and parity, measured one way. Read `measure` first; each kind is a module with its peers."""
