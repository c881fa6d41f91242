// better-auth with sign-in by a mailed code: SQLite, codes kept as digests, one kept connection to the mail server.
import { betterAuth } from 'better-auth';
import { emailOTP } from 'better-auth/plugins';
import Database from 'better-sqlite3';
import nodemailer from 'nodemailer';

const { DATABASE, PORT, SMTP_PORT } = process.env;

export const database = new Database(DATABASE);
database.pragma('journal_mode = WAL');
database.pragma('synchronous = FULL');

const mail = nodemailer.createTransport({ host: '127.0.0.1', port: +SMTP_PORT, secure: false, ignoreTLS: true, pool: true });

async function sendVerificationOTP({ email, otp }) {
  await mail.sendMail({
    from: 'noreply@example.com',
    to: email,
    subject: 'Your code to sign in',
    text: `Your code to sign in is ${otp}\n\nIt works for five minutes. If you did not ask for it, ignore this mail.\n`,
  });
}

export const auth = betterAuth({
  database,
  baseURL: `http://127.0.0.1:${PORT}`,
  secret: 'bench-7c1e5a90d2b84f36-bench-7c1e5a90d2b84f36',
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  logger: { level: 'error' },
  plugins: [emailOTP({ storeOTP: 'hashed', sendVerificationOTP })],
});
