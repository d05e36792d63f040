"""Push wakes: what a binary asks for to wake a phone that is not connected, through Firebase Cloud Messaging (FCM)."""
