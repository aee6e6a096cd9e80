"""ai-ticketctl: what runs at the operator's end of the control socket."""
