"""The servers that are compared: real processes on free ports of 127.0.0.1, each with a folder and a core of its own."""
