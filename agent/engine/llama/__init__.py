"""The only package that imports llama_cpp: thin, typed layers over llama.cpp's low-level C API.

llama.cpp aborts the process on a wrong argument, so everything is checked before it is passed on.
Only one OS thread of a process may ever decode (a second one costs 30 % for good).
"""
