// Sends the letters of the JSON in argv[2] with Nodemailer, and prints what it says of each; exit 1 on an error.
'use strict';

const fs = require('node:fs');
const nodemailer = require('nodemailer');

const order = JSON.parse(process.argv[2]);
const transport = nodemailer.createTransport({
  host: order.host,
  port: order.port,
  secure: order.tls === 'implicit',
  requireTLS: order.tls === 'starttls',
  ignoreTLS: order.tls === 'none',
  tls: { ca: fs.readFileSync(order.ca) },
  auth: order.username ? { user: order.username, pass: order.password } : undefined,
  authMethod: order.mechanism || undefined,
  pool: Boolean(order.pool),
  maxConnections: order.pool || undefined,
});

async function main() {
  const sent = order.letters.map((letter) => transport.sendMail({
    from: { name: 'App', address: letter.sender },
    to: letter.to,
    bcc: letter.bcc || undefined,
    subject: letter.subject,
    text: letter.text,
    html: letter.html,
    headers: letter.headers,
    attachments: [{ filename: letter.filename, content: Buffer.from(letter.attachment, 'base64') }],
  }));
  for (const info of await Promise.all(sent)) {
    console.log(info.response);
  }
}

main().then(
  () => transport.close(),
  (error) => {
    console.error(`${error.code} ${error.responseCode}: ${error.message}`);
    transport.close();
    process.exitCode = 1;
  },
);
