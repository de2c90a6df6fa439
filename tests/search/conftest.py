import sys
from pathlib import Path

# Spawned workers get this process's sys.path, so that they find the module of the toy evaluations.
sys.path.insert(0, str(Path(__file__).parent))
