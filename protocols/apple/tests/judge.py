"""Loads every property list in a folder with Python's plistlib and prints what it read as JSON."""
import base64, datetime, json, pathlib, plistlib, sys

def plain(value):
    if isinstance(value, bytes):
        return {"data": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"date": value.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if isinstance(value, dict):
        return {"dict": {key: plain(item) for key, item in value.items()}}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value

folder = pathlib.Path(sys.argv[1])
print(json.dumps({path.name: plain(plistlib.loads(path.read_bytes())) for path in folder.glob("*.plist")}))
