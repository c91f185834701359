"""The one entry point; `python run_benchmark.py --help` lists what it does."""

from benchmark.cli.app import main

if __name__ == "__main__":
    main()
