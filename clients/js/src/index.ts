export * from './connect.js'
