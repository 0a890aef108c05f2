// The grpc-timeout header: 1 to 8 digits and a unit (gRPC over HTTP/2, "Timeout"). Error texts as grpc-go's.

/** Milliseconds (may be a fraction), or the text of what is wrong. On the path of each call that has a deadline. */
export function parseTimeout(value: string): number | string {
  const last = value.length - 1;
  if (last < 1) return `transport: timeout string is too short: ${JSON.stringify(value)}`;
  if (last > 8) return `transport: timeout string is too long: ${JSON.stringify(value)}`;
  const unit = unitMs(value.charCodeAt(last));
  if (unit === 0) return `transport: timeout unit is not recognized: ${JSON.stringify(value)}`;
  let count = 0;
  for (let i = 0; i < last; i += 1) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) {
      return `strconv.ParseUint: parsing ${JSON.stringify(value.slice(0, last))}: invalid syntax`;
    }
    count = count * 10 + digit;
  }
  return count * unit;
}

function unitMs(unit: number): number {
  switch (unit) {
    case 0x48: // H
      return 3_600_000;
    case 0x4d: // M
      return 60_000;
    case 0x53: // S
      return 1_000;
    case 0x6d: // m
      return 1;
    case 0x75: // u
      return 1e-3;
    case 0x6e: // n
      return 1e-6;
    default:
      return 0;
  }
}
