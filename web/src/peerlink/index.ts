// peerlink for browsers: a tab as a device that others reach by its id.
//
//   const me = await load("my browser");
//   const device = new Device(me, { signal: "wss://board.example/" }, events);
//   const messages = new Messenger(await MessageStore.open(), (peer, name, signal) => device.open(peer, name, signal), show);
//   await messages.send(parseDeviceID(id), "hello"); // kept; sent when the device can be reached
//
// A channel is a ReadableStream and a WritableStream. Nothing of a channel is
// sent or believed before both devices have proven themselves over the DTLS
// connection at hand. Beside its streams a channel has datagrams. Limits: one
// switchboard; version 2 of the protocol; no relay unless iceServers names one.

export { Channel } from "./channel";
export { closedHere, type Connection, Device, type DeviceConfig, type DeviceEvents } from "./device";
export { ClosedError, Code, DeclinedError, GoingAwayError, IdentityError, LostError, ProtocolError, ResetError, StoppedError } from "./errors";
export { Identity } from "./identity";
export { badFileName } from "./input";
export { type DeviceID, parseDeviceID } from "./keys";
export { type Incoming, Link } from "./link";
export { Messenger, messagesURI } from "./messages";
export { FullError, type Mark, type Message, MessageStore } from "./messagestore";
export { type Arriving, type FileSink, type Offered, Receiver, type Taking } from "./parcelreceive";
export { FileSender, type SendEvents } from "./parcelsend";
export { scheme as filesScheme } from "./parcelwire";
export { load, save } from "./store";
export type { LineState } from "./switchboard";
