"""What `self.log` keeps, and the rows that become of it."""
