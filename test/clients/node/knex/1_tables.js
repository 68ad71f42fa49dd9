// The application's tables, as they were before anybody heard of rowkeeper.
export async function up (knex) {
  for (const [parent, child] of [['customers', 'orders'], ['tickets', 'messages']]) {
    await knex.schema.createTable(parent, table => {
      table.increments('id')
      table.text('name').notNullable()
      table.integer('version').notNullable().defaultTo(1)
    })
    await knex.schema.createTable(child, table => {
      table.increments('id')
      table.integer('parent_id').notNullable().references('id').inTable(parent).onDelete('CASCADE')
    })
  }
}

export async function down () {}
