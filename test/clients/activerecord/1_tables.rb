# The application's tables, as they were before anybody heard of rowkeeper.
class Tables < ActiveRecord::Migration[6.1]
  def change
    { customers: :orders, tickets: :messages }.each do |parent, child|
      create_table parent do |t|
        t.text :name, null: false
        t.integer :lock_version, null: false, default: 0
        t.timestamps
      end
      create_table child do |t|
        t.references :parent, null: false, foreign_key: { to_table: parent, on_delete: :cascade }
      end
    end
  end
end
