"""Recorded answers, as the sandbox plays them for either provider."""

#: A state of no contract, twice.
ODD = {
    "status": [
        {
            "body": {
                "id": "$id",
                "request_id": "$id",
                "status_code": "post_processing",
                "status": "post_processing",
            },
            "times": 2,
        },
        "own",
    ]
}
#: A page for people in place of the file, called a video.
PAGE = {
    "headers": {"Content-Type": "video/mp4"},
    "text": "<!doctype html><html><body>Sign in to go on</body></html>",
}


def done(outputs, **fields):
    """Runflow: the run succeeded with this output; RunComfy: its result."""
    flow = {"body": {"id": "$id", "status_code": "succeeded", "output": outputs, **fields}}
    comfy = {"body": {"request_id": "$id", "status": "succeeded", "output": outputs, **fields}}
    return {"runflow": {"status": flow}, "runcomfy": {"result": comfy}}


def clip_at(link, wire):
    """The run succeeded, and its clip is said to be there."""
    return done({"outputs": [{"url": link, "type": "video"}]}, cost="0.336")[wire]


#: A success without a clip, for good.
EMPTY = {
    "status": {
        "body": {
            "id": "$id",
            "request_id": "$id",
            "status_code": "succeeded",
            "status": "succeeded",
            "output": {"outputs": []},
        }
    }
}
#: A clip that the provider calls indecent.
FLAGGED = done({"outputs": [{"url": "$clip", "type": "video"}], "nsfw_detected": True}, cost="0.336")[
    "runflow"
]
