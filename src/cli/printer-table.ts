// The table format: only what is a list of members or endpoints.

import type { Printer } from './printer.ts';
import {
  hashRows,
  hashTitles,
  healthRows,
  healthTitles,
  memberRows,
  memberTitles,
  statusRows,
  statusTitles,
} from './printer-rows.ts';
import { tableText } from './table.ts';

export const tablePrinter: Printer = {
  memberList: (response, out) => out.text(tableText(memberTitles, memberRows(response))),
  endpointHealth: (list, out) => out.text(tableText(healthTitles, healthRows(list))),
  endpointStatus: (list, out) => out.text(tableText(statusTitles, statusRows(list))),
  endpointHashKv: (list, out) => out.text(tableText(hashTitles, hashRows(list))),
};
