"""Load that ai-ticketctl makes: the load test, the drill, and their reports."""
