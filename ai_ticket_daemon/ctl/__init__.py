"""The command ``ai-ticketctl``; nothing of it runs in the daemon.

main.py, cli.py          what is run, and what it understands
command_tree.py          how the commands are made; values.py: what their arguments may be
session.py, client.py    how answers are shown, and how they are got
render.py, top.py        answers on a terminal
commands.py, bulk.py     asking one thing; doing one thing to many events
on_demand.py             the commands that need more, imported when they are run
submit.py, ndjson.py     events from the command line
bundle.py, restore.py    archives and copies
audit_log.py             telling the journal who asks for a change
load/                    load tests and drills
"""
