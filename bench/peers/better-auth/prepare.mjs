// The tables, and the people who will sign in.
import { getMigrations } from 'better-auth/db/migration';
import { auth, database } from './auth.mjs';

const { runMigrations } = await getMigrations(auth.options);
await runMigrations();

const now = new Date().toISOString();
const add = database.prepare(
  'insert into user (id, name, email, emailVerified, createdAt, updatedAt) values (?, ?, ?, 1, ?, ?)',
);
database.transaction((people) => {
  for (let i = 0; i < people; i++) {
    const number = String(i).padStart(5, '0');
    add.run(`person-${number}-0123456789abcdef`, `Person ${number}`, `user${number}@example.com`, now, now);
  }
})(+process.env.PEOPLE);
database.close();
