"""The operator's side: the control socket of the daemon, and ``ai-ticketctl``, which talks to it.

surface.py, operations.py   the socket: what can be asked, by whom, and the audit of each change
arguments.py, answers.py    what an operation takes and what it gives back
history.py, why.py          what happened to the backends, and the life of an event in plain words
ctl.py and below            the command
"""
