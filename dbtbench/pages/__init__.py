"""Pages: one HTML file with its data, script, style and volumes inside, which needs no network.

template    the file from a template, and the policy that forbids the rest
sprites     volumes as pictures
"""
