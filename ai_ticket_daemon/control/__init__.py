"""The operator's side of the daemon: the control socket, to which ``ai-ticketctl`` talks.

server.py          the actor that serves the socket
control_app.py     what is served to whoever may act; view_app.py: to whoever may only look
operation.py       what an operation is; arguments.py: what an operation takes
*_operations.py    what can be asked for, by what it is about
orders.py          what an operator ordered for all daemons of a store
history.py         what happened to the backends; why.py: the life of an event in plain words
fields.py          the fields of what is told
"""
