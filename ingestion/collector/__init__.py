"""How do events come in by themselves? An HTTP collector of the common event spec, and the log it keeps them in.

Client SDKs of the spec (identify, track, page, screen, group, alias, batch) reach it by a changed host only. A message
is answered once it is durable, as a line in a segment of its stream; `foretell load` makes facts of it, as of any file.
"""
