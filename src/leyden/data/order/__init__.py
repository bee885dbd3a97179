"""Which row comes when: pure functions of seed, epoch and position. numpy only, no files."""
