#!/usr/bin/python3
"""open.py FILE: has it open until it is killed. Does not wait for a carrier, as a shell's `exec 3<>FILE` would."""

import os
import sys
import time

os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
time.sleep(3600)
