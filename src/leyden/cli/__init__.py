"""The command line: `leyden …`. One module per command group; each imports what it runs when it runs it."""
