"""The operator's side: the control socket of the daemon, and ``ai-ticketctl``, which talks to it.

The daemon's part:

server.py                   the actor that serves the socket
surface.py, operations.py   what can be asked, by whom, and the audit of each change
arguments.py, report.py     what an operation takes, and the one screen of facts
history.py, why.py          what happened to the backends, and the life of an event in plain words

The command's part, none of which runs in the daemon:

ctl.py, words.py            what is run, and what it understands
session.py, client.py       how answers are shown, and how they are got
screen.py, top.py           answers on a terminal
commands.py, bulk.py        asking one thing; doing one thing to many events
submit.py, ndjson.py        events from the command line
traffic.py                  the generator; with gauges.py, verdict.py, durations.py: loadtest.py,
                            with ledger.py: drill.py
bundle.py, restore.py       archives and copies
"""
