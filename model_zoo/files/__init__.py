"""Files written whole, claimed by one process, downloaded. Imports no other folder of this package."""
