"""Small state that must outlive a process: values by key, leases, and a table of events."""
