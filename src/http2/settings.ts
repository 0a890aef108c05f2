// SETTINGS (RFC 9113, 6.5): what the peer asked of us, and the frame with what we ask of it.
//
//   offset  bytes  one setting of the payload
//   0       2      identifier
//   2       4      value

import type { Http2Limits } from '../connection-limits.ts';
import { ErrorCode, readUint32, SettingId, windowBytesDefault, windowBytesMax, writeUint32 } from './frame.ts';

export class PeerSettings {
  headerTableSize = 4096;
  initialWindowSize: number = windowBytesDefault;
  maxFrameSize = 16_384;
  /** Advisory; Infinity when the peer did not say. */
  maxHeaderListSize: number = Number.POSITIVE_INFINITY;

  /** Applies a payload. Returns ErrorCode.noError or the connection error that it is. */
  apply(buffer: Buffer, start: number, end: number): ErrorCode {
    if ((end - start) % 6 !== 0) return ErrorCode.frameSizeError;
    for (let at = start; at < end; at += 6) {
      const error = this.set((buffer[at]! << 8) | buffer[at + 1]!, readUint32(buffer, at + 2));
      if (error !== ErrorCode.noError) return error;
    }
    return ErrorCode.noError;
  }

  private set(id: number, value: number): ErrorCode {
    switch (id) {
      case SettingId.headerTableSize:
        this.headerTableSize = value;
        break;
      case SettingId.enablePush:
        if (value > 1) return ErrorCode.protocolError;
        break;
      case SettingId.initialWindowSize:
        if (value > windowBytesMax) return ErrorCode.flowControlError;
        this.initialWindowSize = value;
        break;
      case SettingId.maxFrameSize:
        if (value < 16_384 || value > 0xffffff) return ErrorCode.protocolError;
        this.maxFrameSize = value;
        break;
      case SettingId.maxHeaderListSize:
        this.maxHeaderListSize = value;
        break;
      default: // MAX_CONCURRENT_STREAMS binds pushes, which we never send; unknown ones are ignored (6.5.2).
    }
    return ErrorCode.noError;
  }
}

/** Payload of the SETTINGS that we open with: what differs from the protocol's defaults. */
export function ownSettings(limits: Http2Limits, concurrentStreamsMax: number): Buffer {
  const settings: [number, number][] = [[SettingId.maxFrameSize, limits.frameBytesMax]];
  // As grpc-go: no number announced means no limit, and ours without one is only a guard of memory.
  if (concurrentStreamsMax < limits.streamsMax) settings.push([SettingId.maxConcurrentStreams, concurrentStreamsMax]);
  if (limits.streamWindowBytes !== windowBytesDefault) {
    settings.push([SettingId.initialWindowSize, limits.streamWindowBytes]);
  }
  if (limits.headerTableBytes !== 4096) settings.push([SettingId.headerTableSize, limits.headerTableBytes]);
  settings.push([SettingId.maxHeaderListSize, limits.headerListBytesMax]);
  return settingsPayload(settings);
}

/** Payload of a SETTINGS frame of [identifier, value] pairs. */
function settingsPayload(settings: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  settings.forEach(([id, value], i) => {
    payload[i * 6 + 1] = id;
    writeUint32(payload, i * 6 + 2, value);
  });
  return payload;
}
