// peerlink for browsers: a tab as a device that others reach by its id.
//
//   const me = await load("my browser");
//   const device = new Device(me, { signal: "wss://board.example/" }, events);
//   const channel = await device.open(parseDeviceID(id), "chat://" + me.device.slice(0, 8));
//   for await (const line of lines(channel)) console.log(line);
//
// A channel is a ReadableStream and a WritableStream. Nothing of a channel is
// sent or believed before both devices have proven themselves over the DTLS
// connection at hand. Beside its streams a channel has datagrams. Limits: one
// switchboard; version 2 of the protocol; no relay unless iceServers names one.

export { Channel } from "./channel";
export { lines, Speaker } from "./chat";
export { closedHere, type Connection, Device, type DeviceConfig, type DeviceEvents } from "./device";
export { ClosedError, Code, DeclinedError, GoingAwayError, IdentityError, LostError, ProtocolError, ResetError } from "./errors";
export { Identity } from "./identity";
export { type DeviceID, parseDeviceID } from "./keys";
export { type Incoming, Link } from "./link";
export { load, save } from "./store";
export type { LineState } from "./switchboard";
export { type Announced, badFileName, type FileSink, receiveFile, sendFile } from "./transfer";
