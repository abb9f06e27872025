"""The commands: parse what was typed, call one function, end with the right exit code.

In: the command line. Out: lines on the terminal and an exit code. Each module with the name of a
command has ``main(arguments)``; ``jobs/*.py`` and ``catdog`` call these. Imports every room.
"""
