"""Watch a page for anything that foreign markup would start."""


class Watch:
    """What a page asks for, and which dialogs it opens."""

    def __init__(self, page):
        self.asked, self.dialogs = [], 0
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("dialog", self._dialog)

    def _dialog(self, dialog):
        self.dialogs += 1
        dialog.dismiss()

    def foreign_files(self, *own):
        """The addresses that are neither data nor one's own."""
        mine = ("data:", "blob:", "about:", *own)
        return [url for url in self.asked if not url.startswith(mine)]
