"""Others' ways to run the same network.

None of it shares code with `icnet_deploy.runtime`, whose speed it is compared with.
"""
