// A way to peers that leads nowhere: for tests of a member that is alone.

import type { PeerRequests, PeerTransport } from '../peer/peer-transport.ts';

export const silentTransport: PeerTransport = {
  send: () => {},
  flush: () => {},
  sendSnapshot: () => {},
  addPeer: () => {},
  updatePeer: () => {},
  removePeer: () => {},
  activeSinceMs: () => null,
  stop: () => {},
};

export const silentRequests: PeerRequests = {
  request: (url, _request, done) => setImmediate(() => done(new Error(`nobody is at ${url}`), null)),
};
