"""A stand-in for Twilio's Messaging API, for WhatsApp and SMS, beside the Graph API's.

docs/simulator.md is its manual.
"""

from .account import Twilio

__all__ = ["Twilio"]
