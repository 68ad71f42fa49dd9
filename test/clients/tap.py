"""What the Python clients share: one line of TAP for each thing shown."""
import contextlib
import traceback

shown = 0


def ok(condition, name):
    global shown
    shown += 1
    print(f"{'ok' if condition else 'not ok'} {shown} - {name}", flush=True)


def same(got, expected, name):
    ok(got == expected, name)
    if got != expected:
        print(f"# expected {expected!r}\n#      got {got!r}", flush=True)


@contextlib.contextmanager
def raises(error, name):
    """The block fails with the client's own ERROR; yields what is known of it."""
    caught = []
    try:
        yield caught
    except error as e:
        caught.append(e)
        ok(True, name)
    except Exception:
        ok(False, name)
        comment(traceback.format_exc())
    else:
        ok(False, name + ' (nothing was raised)')


def story(tell):
    """Run a story; one that dies is a failure, and the next ones are told."""
    try:
        tell()
    except Exception:
        ok(False, tell.__name__ + ' went to its end')
        comment(traceback.format_exc())
    return tell


def comment(text):
    for line in text.splitlines():
        print('#', line, flush=True)


def done():
    print(f'1..{shown}', flush=True)
